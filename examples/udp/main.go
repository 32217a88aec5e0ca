// Udp is a UDP service: all workers read from one socket, which the manager binds, and each datagram is answered by the
// one that read it. A worker that is told to stop reads no more; what lies in the socket is read by the others, or
// by those that take their places.
//
//	go run ./examples/udp
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
		syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop; so does Ctrl-C
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
		fmt.Printf("try:  bash -c 'exec 3<>/dev/udp/%s/%s; echo who are you >&3; head -n 1 <&3'\n", host, port)
		fmt.Printf("      kill -HUP %[1]d    kill %[1]d, or Ctrl-C\n", os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error { return answer(w, pc) }); err != nil {
		log.Fatal(err)
	}
}

func answer(w *prefork.Worker, pc net.PacketConn) error {
	// The deadline is this process's own. It ends a read that waits, and lets none begin; it takes no datagram away.
	context.AfterFunc(w.Context(), func() { pc.SetReadDeadline(time.Now()) })
	buf := make([]byte, 64<<10) // a longer datagram there is not
	for {
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil // told to stop, and what was read is answered
		}
		if err != nil {
			return err
		}
		reply := fmt.Appendf(nil, "worker %d of generation %d read %d bytes\n", w.Slot(), w.Generation(), n)
		if _, err := pc.WriteTo(reply, from); err != nil {
			log.Printf("no answer to %v: %v", from, err) // that client's trouble, not the service's
		}
	}
}
