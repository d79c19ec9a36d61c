"""LoRA on premises: data sets, training runs, rules behind the model, adapters under lock; nothing here is a proxy."""
