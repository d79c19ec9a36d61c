"""The presets: complete slo.yaml files, read by `slo.spec.preset_text`."""
