"""All code that depends on torch's internals: derivatives in closed form, transforms, compilation, copies."""
