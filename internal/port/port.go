// Package port opens a socket during its initialization, as some packages do. By
// its path, Go would initialize it before the packages of this module that import
// net too, except for those that sort before it.
package port

import (
	"net"
	"os"
)

// Listener is open if the environment has the variable PORT_OF_TEST with the
// address of a unix socket that is free. Err is the error if it is not. A TCP port
// could be taken by another process after the test has chosen it.
var Listener, Err = listen()

func listen() (net.Listener, error) {
	address := os.Getenv("PORT_OF_TEST")
	if address == "" {
		return nil, nil
	}
	return net.Listen("unix", address)
}
