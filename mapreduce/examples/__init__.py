"""Jobs of a page or less, each run by its name: `ringreduce run wordcount books/ -o counts`.

They are written to be copied: a copy in a file of your own runs as `ringreduce run yours.py INPUT…`,
or as `python yours.py INPUT…`.
"""

EXAMPLES = {
    "crawl_summary": "pages, bytes and media types of a web crawl (WARC), by host and by status",
    "degrees": "in- and out-degree of every node of a graph given as a list of edges",
    "inverted_index": "for every word the documents it stands in",
    "join": "orders beside the customers who made them, from two CSV files",
    "log_hits": "hits and bytes by URL, from web server logs",
    "log_visitors": "distinct visitors by URL, from web server logs",
    "pagerank": "the PageRank of every node after n rounds, as a pipeline of steps",
    "sort_records": "records of 100 bytes, sorted by the 10 bytes they begin with",
    "top_words": "the k most frequent words, in two steps",
    "total_sort": "all lines in order, from the first part to the last",
    "wordcount": "how often every word occurs",
}
