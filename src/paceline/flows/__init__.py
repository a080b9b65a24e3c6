"""How continuous sequences are generated from noise, or turned into others, along a learned flow."""
