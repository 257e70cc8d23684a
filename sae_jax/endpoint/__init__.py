# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A chat model behind an OpenAI-compatible HTTP endpoint, local or remote.

Nothing is contacted unless a config names an endpoint. The key comes from an
environment variable and is in no file, log or message.
"""

from sae_jax.endpoint.chat import Endpoint, Message, Reply
from sae_jax.endpoint.config import EndpointConfig
from sae_jax.endpoint.transport import EndpointError

__all__ = ["Endpoint", "EndpointConfig", "EndpointError", "Message", "Reply"]
