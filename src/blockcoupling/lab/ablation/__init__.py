"""Block ablation: blocks skipped, swapped, replaced and merged, and what that costs."""
