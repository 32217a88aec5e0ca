package capture_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"

	"github.com/prefork-go/prefork/ops/capture"
)

func Example() {
	sink, err := capture.NewStream(os.Stderr)
	if err != nil {
		log.Fatal(err)
	}
	c, err := capture.New(capture.Config{Sink: sink, Format: capture.Prefix, Name: "web"})
	if err != nil {
		log.Fatal(err)
	}

	// For each worker:
	w, err := c.Open(0)
	if err != nil {
		log.Fatal(err)
	}
	cmd := exec.Command("echo", "hello")
	cmd.Stdout, cmd.Stderr = w.Stdout, w.Stderr
	if err := cmd.Start(); err != nil {
		w.Cancel()
		log.Fatal(err)
	}
	w.Started(cmd.Process.Pid)
	err = cmd.Wait()
	w.Ended(func(last []capture.Line) {
		if err != nil {
			log.Printf("worker: %v, after %v", err, last)
		}
	})

	// At the end, after all workers:
	if err := c.Close(context.Background()); err != nil {
		log.Print(err)
	}
	fmt.Println(c.Tail(0, 1)[0].Text)
	// Output: hello
}
