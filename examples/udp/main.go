// Udp is a UDP service. All workers read from one socket, which the manager
// binds, and a worker answers each datagram that it has read. A stopping worker
// reads no more datagrams. The other workers, or its replacement, read those
// that are in the socket.
//
// Run it, send a datagram, replace the workers, and stop it. PID is the
// manager's pid, which the program prints.
//
//	go run ./examples/udp
//	bash -c 'exec 3<>/dev/udp/127.0.0.1/8053; echo hello >&3; head -n 1 <&3'
//	kill -HUP PID
//	kill PID
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
)

var listen = flag.String("listen", "127.0.0.1:8053", "address to answer on")

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{MaxWorkers: 3, TrapSignals: prefork.Signals{
		syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
		syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // replace the workers
	}})
	if err != nil {
		log.Fatal(err)
	}
	pc, err := pm.ListenPacket("udp", *listen) // bound by the manager, inherited by each worker
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		host, port, _ := net.SplitHostPort(pc.LocalAddr().String())
		fmt.Printf("answering on %s\n", pc.LocalAddr())
		fmt.Printf("try:  bash -c 'exec 3<>/dev/udp/%s/%s; echo hello >&3; head -n 1 <&3'\n", host, port)
		fmt.Printf("      kill -HUP %[1]d    kill %[1]d, or Ctrl-C\n", os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		return answer(w, pc)
	}); err != nil {
		log.Fatal(err)
	}
}

// maxDatagram is larger than any datagram of UDP.
const maxDatagram = 64 << 10

func answer(w *prefork.Worker, pc net.PacketConn) error {
	// The deadline affects only this process. It interrupts a waiting read and
	// fails later ones, and it discards no datagram.
	context.AfterFunc(w.Context(), func() { pc.SetReadDeadline(time.Now()) })
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil // the worker must stop, and all datagrams that it read are answered
		}
		if err != nil {
			return err
		}
		reply := fmt.Appendf(nil, "worker %d of generation %d read %d bytes\n", w.Slot(), w.Generation(), n)
		if _, err := pc.WriteTo(reply, from); err != nil {
			// A problem of that client, not of the service.
			log.Printf("answer to %v failed: %v", from, err)
		}
	}
}
