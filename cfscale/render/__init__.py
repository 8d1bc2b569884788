"""From a plan to text: ``context`` decides, ``engine`` fills templates, ``emit`` writes YAML, ``check`` reads it back."""
