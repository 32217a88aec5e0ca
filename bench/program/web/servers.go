//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"github.com/valyala/fasthttp"
	fastprefork "github.com/valyala/fasthttp/prefork"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

func onPrefork() error {
	cfg := prefork.Config{
		MaxWorkers: *workers,
		Standby:    *standby,
		CrashLoop:  prefork.CrashLoop{Failures: -1}, // rows kill workers that have only started
		Resources:  prefork.Resources{GOMAXPROCS: *gomaxprocs},
		TrapSignals: prefork.Signals{
			syscall.SIGTERM: {Signal: syscall.SIGTERM},
			syscall.SIGHUP:  {Rolling: true},
			syscall.SIGUSR1: {Signal: syscall.SIGTERM},
		},
	}
	pm, err := prefork.New(cfg)
	if err != nil {
		return err
	}
	bind := pm.Listen
	if *each {
		bind = pm.ListenPerWorker
	}
	ln, err := bind("tcp", *listen)
	if err != nil {
		return err
	}
	return pm.Run(context.Background(), func(w *prefork.Worker) error {
		if !*fast {
			return preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(netHandler)})
		}
		srv := &fasthttp.Server{Handler: fastHandler}
		context.AfterFunc(w.Context(), func() { srv.Shutdown() })
		return srv.Serve(ln)
	})
}

func onFasthttp() error {
	p := fastprefork.New(&fasthttp.Server{Handler: fastHandler})
	p.RecoverThreshold = 1 << 30 // by default the first or second killed worker ends the service
	p.Reuseport = *each
	if *watch {
		p.OnMasterDeath = func() { os.Exit(1) }
	}
	if !*fast {
		p.ServeFunc = func(ln net.Listener) error { return http.Serve(ln, http.HandlerFunc(netHandler)) }
	}
	return p.ListenAndServe(*listen)
}

func onSingle() error {
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	if *fast {
		return (&fasthttp.Server{Handler: fastHandler}).Serve(ln)
	}
	return http.Serve(ln, http.HandlerFunc(netHandler))
}

// onTableflip is the example in tableflip's documentation.
func onTableflip() error {
	upg, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	defer upg.Stop()
	go func() {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		for range hup {
			upg.Upgrade()
		}
	}()
	ln, err := upg.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(netHandler)}
	go func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			upg.Stop()
		}
	}()
	if err := upg.Ready(); err != nil {
		return err
	}
	<-upg.Exit()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}
