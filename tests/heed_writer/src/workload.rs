//! What one commit changes, in the manner of Ucotron: few records all over the tree, and the whole HNSW value.

use crate::options::WriteOptions;
use crate::random::Random;
use crate::store::{Change, Layout, VECTOR};

const CHANGES: u64 = 8;
const BATCH: u64 = 2000;
const TYPES: u64 = 10;
const EDGES_PER_NODE: u64 = 4;

const NODES: usize = 0;
const HNSW_INDEX: usize = 1;
const EDGES: usize = 1;
const ADJ_OUT: usize = 2;
const ADJ_IN: usize = 3;
const NODES_BY_TYPE: usize = 4;

pub struct Workload<'o> {
    options: &'o WriteOptions,
}

impl<'o> Workload<'o> {
    pub fn new(options: &'o WriteOptions) -> Workload<'o> {
        Workload { options }
    }

    /// Whether there are so few nodes that `apply` inserts a batch of them instead of changing some.
    pub fn is_filling(&self, change: &Change) -> bool {
        // Never all of them: deletions keep the number a little below.
        change.entries(NODES) < self.options.nodes - self.options.nodes / 8
    }

    /// Do the work of one commit in an environment of this layout.
    pub fn apply(&self, layout: &Layout, change: &mut Change) -> heed::Result<()> {
        let is_vector = std::ptr::eq(layout, &VECTOR);
        let mut random = Random::new(self.options.seed ^ change.counter.rotate_left(20));
        let put = if is_vector { put_vector_node } else { put_graph_node };
        let delete = if is_vector { delete_vector_node } else { delete_graph_node };
        if self.is_filling(change) {
            let first = change.entries(NODES);
            for key in first..self.options.nodes.min(first + BATCH) {
                put(change, &mut random, key)?;
            }
        }
        for _ in 0..CHANGES {
            // Twice as many keys as may live, so that some are always missing and can be inserted.
            let key = random.below(2 * self.options.nodes);
            if !change.holds(NODES, key)? {
                if change.entries(NODES) < self.options.nodes {
                    put(change, &mut random, key)?;
                }
            } else if random.below(4) == 0 {
                delete(change, key)?;
            } else {
                put(change, &mut random, key)?;
            }
        }
        if is_vector {
            let size = self.options.index_size;
            let spread = random.below(size as u64 / 8 + 1) as usize;
            change.put(HNSW_INDEX, 0, size - size / 16 + spread)?;
        }
        Ok(())
    }
}

fn put_vector_node(change: &mut Change, random: &mut Random, key: u64) -> heed::Result<()> {
    // An embedding and some text; now and then a text that needs overflow pages.
    let text = if random.below(16) == 0 { 5000 } else { random.below(300) as usize };
    change.put(NODES, key, 384 * 4 + text)
}

fn delete_vector_node(change: &mut Change, key: u64) -> heed::Result<()> {
    change.delete(NODES, key)
}

fn put_graph_node(change: &mut Change, random: &mut Random, key: u64) -> heed::Result<()> {
    change.put(NODES, key, 100 + random.below(500) as usize)?;
    change.put(EDGES, key * EDGES_PER_NODE + random.below(EDGES_PER_NODE), 40)?;
    change.put(ADJ_OUT, key, 8 * random.below(40) as usize)?;
    change.put(ADJ_IN, key, 8 * random.below(40) as usize)?;
    change.put(NODES_BY_TYPE, random.below(TYPES), 8 * random.below(400) as usize)
}

fn delete_graph_node(change: &mut Change, key: u64) -> heed::Result<()> {
    for edge in 0..EDGES_PER_NODE {
        change.delete(EDGES, key * EDGES_PER_NODE + edge)?;
    }
    for database in [NODES, ADJ_OUT, ADJ_IN] {
        change.delete(database, key)?;
    }
    Ok(())
}
