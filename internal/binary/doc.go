// Package binary handles the program's file: it finds, opens and checks the
// file, and provides a path to start it from. On systems without Unix processes
// it fails or has no effect.
package binary
