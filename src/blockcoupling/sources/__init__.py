"""Where models, prompts and texts come from: the hub, local files, what is built in."""
