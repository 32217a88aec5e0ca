// Package fd works on file descriptors: it duplicates, locks and closes them,
// sets their blocking mode, and reads data and descriptors from other processes.
// On systems without Unix processes its functions fail or are no-ops.
package fd
