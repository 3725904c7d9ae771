// node write_vectors.mjs DIRECTORY: each export of cctv-age as a file of its name.
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as vectors from "cctv-age"

const directory = process.argv[2]
mkdirSync(directory)
for (const [name, bytes] of Object.entries(vectors)) {
    writeFileSync(join(directory, name), bytes)
}
