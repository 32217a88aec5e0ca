// Service is a prefork HTTP server with a name. Only one of each name runs at a
// time. Commands stop and pause it, and so does touching a file. It records its
// events in a journal.
//
// Run it in one terminal, and type the other commands in another.
//
//	go run ./examples/service run
//	curl http://127.0.0.1:8080/
//	go run ./examples/service status
//	go run ./examples/service pause      # or: touch web.paused
//	go run ./examples/service resume
//	go run ./examples/service zap        # stop, and wait for the exit
//	go run ./examples/service start      # allow run again
//
// All commands accept --name and --dir. The option --help lists the others.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/journal"
	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforkhttp"
)

// cli is parsed in every worker too, from the same arguments.
var cli struct {
	Name string `default:"web" help:"Name of the service."`
	Dir  string `default:"." help:"Directory of its files."`

	Run struct {
		Listen  string `default:"127.0.0.1:8080" help:"Address to serve on."`
		Workers int    `default:"4" help:"Number of workers."`
	} `cmd:"" help:"Run the service until it is stopped."`
	Stop   struct{} `cmd:"" help:"Stop the service, and prevent run until start."`
	Start  struct{} `cmd:"" help:"Allow run again; this command does not run the service."`
	Pause  struct{} `cmd:"" help:"Stop accepting connections and beginning requests."`
	Resume struct{} `cmd:"" help:"Continue after pause."`
	Zap    struct {
		Timeout time.Duration `default:"10s" help:"How long to wait."`
		Term    time.Duration `help:"Send TERM after this time."`
		Kill    time.Duration `help:"Send KILL after this time."`
	} `cmd:"" help:"Stop the service, and wait until it has exited."`
	Status struct{} `cmd:"" help:"Report whether the service runs; exit status 3 if not."`
}

func main() {
	command := kong.Parse(&cli, kong.Name("service"),
		kong.Description("A server that is stopped and paused by files.")).Command()
	s, err := service.New(cli.Name, cli.Dir)
	if err != nil {
		log.Fatal(err)
	}
	if err := execute(s, command); err != nil {
		log.Fatal(err)
	}
}

func execute(s *service.Service, command string) error {
	switch command {
	case "run":
		return run(s)
	case "stop":
		return s.Stop()
	case "pause":
		return s.Pause()
	case "start":
		return reportCleared(s.Start())
	case "resume":
		return reportCleared(s.Resume())
	case "zap":
		return zap(s)
	}
	return status(s)
}

// reportCleared prints a line if the flag to clear was not set.
func reportCleared(wasSet bool, err error) error {
	if err == nil && !wasSet {
		fmt.Println("flag was not set")
	}
	return err
}

func zap(s *service.Service) error {
	ctx, cancel := context.WithTimeout(context.Background(), cli.Zap.Timeout)
	defer cancel()
	outcome, err := s.Zap(ctx, service.Escalation{Term: cli.Zap.Term, Kill: cli.Zap.Kill})
	if outcome == service.StillRunning {
		err = errors.Join(fmt.Errorf("%s is %v", s.Name(), outcome), err)
	}
	if err == nil {
		fmt.Println(s.Name(), outcome)
	}
	return err
}

func status(s *service.Service) error {
	pid, running, err := s.Running()
	switch {
	case err != nil:
		return err
	case running:
		fmt.Printf("%s is running as process %d\n", s.Name(), pid)
	default:
		fmt.Println(s.Name(), "is not running")
	}
	stopped, paused, err := s.Flags()
	if stopped {
		fmt.Println("stopped flag is set")
	}
	if paused {
		fmt.Println("paused flag is set")
	}
	if err != nil {
		fmt.Println(err)
	}
	if last, err := journal.PreviousState(journalPath()); err == nil {
		fmt.Println(last)
	}
	if !running {
		os.Exit(3)
	}
	return nil
}

func journalPath() string { return filepath.Join(cli.Dir, cli.Name+".journal") }

func run(s *service.Service) error {
	var observe func(prefork.Event) // set before Run, which calls it
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: cli.Run.Workers,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
			syscall.SIGHUP:  {Rolling: true},
			syscall.SIGUSR2: {Upgrade: true}, // the successor takes over the name and the journal
		},
		Observe: func(ev prefork.Event) { observe(ev) },
		Logger:  slog.New(slog.DiscardHandler), // the journal's observer prints the events
	})
	if err != nil {
		return err
	}
	detach, err := s.Attach(pm) // first, so that a second run fails before it opens the journal
	if err != nil {
		return err
	}
	defer detach()
	j, err := journal.Open(journalPath(), journal.Config{})
	if err != nil {
		return err
	}
	defer j.Close()
	observe = journal.Observer(journal.MultiSink(j, journal.NewTextSink("stderr", os.Stderr)), nil)

	ln, err := pm.Listen("tcp", cli.Run.Listen)
	if err != nil {
		return err
	}
	if !prefork.IsWorker() {
		fmt.Printf("%s serves on http://%s with %d workers as process %d; previous: %v\n",
			s.Name(), ln.Addr(), cli.Run.Workers, os.Getpid(), j.Previous())
	}
	return pm.Run(context.Background(), func(w *prefork.Worker) error {
		return preforkhttp.Serve(w, ln, &http.Server{Handler: handler(w)})
	})
}

func handler(w *prefork.Worker) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "worker %d of manager %d\n", w.Slot(), w.ManagerPID())
	})
}
