// Gearman is a pool of workers on a Gearman job server. A stopping worker
// finishes its job first. If a worker dies, another one does its job. SIGHUP
// replaces the workers with workers that have the new configuration.
//
// Run gearmand and the pool in two terminals, and submit jobs from a third.
// Edit the configuration and send HUP to the pool while it works: the summary
// counts the jobs of each configuration. PID is shown in the pool's first line.
//
//	gearmand --listen 127.0.0.1 --log-file stderr --pid-file gearmand.pid
//	go run ./examples/gearman worker
//	go run ./examples/gearman submit -n 1000
//	kill -HUP PID
//	kill PID
//
// Both commands accept --server. The option --help lists the others.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/prefork-go/prefork"
)

// cli is parsed in every worker too, from the same arguments.
var cli struct {
	Server string `default:"127.0.0.1:4730" help:"Address of gearmand."`
	Worker struct {
		Workers int    `default:"4" help:"Number of workers."`
		Config  string `default:"examples/gearman/config.json" help:"Configuration, read again on HUP."`
	} `cmd:"" help:"Run a pool of workers."`
	Submit struct {
		N int `short:"n" default:"1000" help:"Number of jobs."`
	} `cmd:"" help:"Submit jobs and count the answers."`
}

// Config is read by the manager and passed to every worker.
type Config struct {
	Name   string // part of every answer
	Rounds int    // amount of work in a job
}

// function is the name under which the workers offer work to gearmand.
const function = "checksum"

func main() {
	var err error
	switch kong.Parse(&cli, kong.Name("gearman"),
		kong.Description("A pool of Gearman workers, and jobs for it.")).Command() {
	case "worker":
		err = manage()
	case "submit":
		err = submit()
	}
	if err != nil {
		log.Fatal(err)
	}
}

func manage() error {
	pm, err := prefork.New(prefork.Config{
		MaxWorkers: cli.Worker.Workers,
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM}, // stop, as Ctrl-C does
			syscall.SIGHUP:  {Signal: syscall.SIGTERM}, // reload, after the running jobs
		},
		Reload: readConfig,
	})
	if err != nil {
		return err
	}
	if !prefork.IsWorker() {
		fmt.Printf("%d workers on gearmand at %s; the manager's pid is %d\n",
			cli.Worker.Workers, cli.Server, os.Getpid())
	}
	return pm.Run(context.Background(), func(w *prefork.Worker) error {
		var c Config
		if err := json.Unmarshal(w.Passed(), &c); err != nil {
			return err
		}
		// An error such as a lost connection ends the worker. The manager
		// delays its replacement with a growing backoff.
		done, err := serve(w.Context(), c)
		log.Printf("worker %d with configuration %q exits after %d jobs", w.Slot(), c.Name, done)
		return err
	})
}

func readConfig() ([]byte, error) {
	data, err := os.ReadFile(cli.Worker.Config)
	if err == nil {
		err = json.Unmarshal(data, new(Config))
	}
	return data, err
}
