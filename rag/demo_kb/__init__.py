"""Demo content: articles of an invented company in English and Traditional Chinese, and questions about them."""
