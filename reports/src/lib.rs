//! Report model, JSON Schema and renderers.
