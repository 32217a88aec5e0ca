// Package flocks finds the process that holds a lock by flock, as far as /proc
// shows it. It works on Linux only: elsewhere the holder of a lock is unknown.
package flocks
