"""What inference costs, what a change would cost, and when it pays: formulas, scenarios, advice, measured spending.

formulas -> scenario -> estimate | breakeven | advice        spending, forecast: from measured traffic
"""
