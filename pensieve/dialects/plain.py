"""For a model without a chat template: the conversation as a transcript that the model goes on with."""

TEMPLATE = """\
{{ bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}
{{- message.content }}
{%- else %}
{{- 'User: ' if message.role == 'user' else 'Assistant: ' }}{{ message.content }}
{%- endif %}
{{- '\\n\\n' }}
{%- endfor %}
{{- 'Assistant:' }}
"""
