"""epithre-iris: text-to-image and image editing behind two OpenAI-shaped routes."""

__version__ = "0.1.0"
