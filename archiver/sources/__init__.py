"""Where bytes come from: copies of LMDB environments and the files of a media tree."""
