"""
An image model
==============

A vision transformer takes pixel values instead of a tokenizer and prompts.
"""

import torch
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTModel

import blockcoupling as bc

torch.manual_seed(0)
sizes = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
vit = ViTModel(ViTConfig(**sizes, intermediate_size=96, image_size=8, patch_size=2, num_channels=1))

# %%
# Three scanned digits of scikit-learn, (image, channel, height, width).

images = torch.tensor(load_digits().images[:3, None] / 16, dtype=torch.float32)

# %%
# ``class`` is the class token, ``mean`` the mean of the Jacobians over all patches.

ds = bc.measure(vit, images=images, k=10, tokens=["class", "last"])
bc.coupling(ds, k=10).to_dataframe("coupling")
