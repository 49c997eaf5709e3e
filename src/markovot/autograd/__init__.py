"""All that touches torch's own machinery: derivatives in closed form, transforms, compilation, copies."""
