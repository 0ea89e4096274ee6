"""Benchmark downloads in their own layout."""

import pickle


def write_cifar(folder, name, pixels, ids, key, protocol):
    folder.mkdir(parents=True, exist_ok=True)
    names = [b"%d.png" % i for i in range(len(ids))]
    content = {
        b"data": pixels.reshape(len(pixels), -1),
        key: [int(i) for i in ids],
        b"filenames": names,
    }
    (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
