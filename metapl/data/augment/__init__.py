"""Views: randomly changed copies of a batch, drawn from a key on the batch's device.

Inside: `base`, the helpers that draw for each example; crops and image operations; RandAugment; views of tables; and
`presets`, the registry behind `--augment`.

Floor 3, within `metapl.data`: imports `core` and `registry`; sources name a default view, training applies it.
"""
