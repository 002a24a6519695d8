"""From prompt to completion: chat prompts and the engines (transformers, vLLM) that continue them."""
