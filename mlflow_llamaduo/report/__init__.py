"""The report of an alignment: MLflow's run -> values -> figures and one HTML file that needs nothing else.

    read.py       the run's files as values: account, configuration, answers and scores by model, rejected rows
    findings.py   what is to be warned of
    figures.py    the paper's Figures 2, 3 and 4 for this run, each as SVG and PNG
    content.py    what stands in the sections
    page.py       the page: templates, escaping, cutting
    make.py       the page and the figures as artifacts of the run

It is made of what MLflow has, so that the end of an alignment and `llamaduo report` make the same page.
"""
