"""Many prompts on many slices: features, generation, volumes and findings."""
