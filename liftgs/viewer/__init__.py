"""A scan in the browser, where what you type lights up. What `liftgs view` does, in Python:

    from liftgs.ground import encode, load
    from liftgs.viewer.page import Page
    model = load("tiny")
    page = Page(model, encode(model, "scans/kitchen"))
    print(page.url)

`liftgs.viewer.answers` and `liftgs.viewer.layers` say what is to be seen, and need no viser; `page` shows it.
"""
