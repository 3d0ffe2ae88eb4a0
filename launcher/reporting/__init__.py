"""What collected seeds say: statistics, rules, comparisons and the forms of the report."""
