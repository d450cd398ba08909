"""What users write and read: the models of the custom resource, its condition types and reasons."""
