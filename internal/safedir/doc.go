// Package safedir works on files in a directory that other users may be able to
// change, without following their links. A process of root would otherwise open,
// change or remove a file that they have chosen.
//
// It holds the directory open and names files relative to it, so a directory
// that is renamed or replaced leads nowhere else in the middle of an operation.
package safedir

import "errors"

// ErrReplaced is returned if a file was replaced between two steps. The
// operation can be tried again.
var ErrReplaced = errors.New("file was replaced by another process: try again")
