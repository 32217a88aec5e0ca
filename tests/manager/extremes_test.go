//go:build unix

package manager_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

// Every number of a Config, at its least and at its greatest value, either is an
// error of New that names the field, or the pool works: it spawns, recycles,
// respawns after a crash, rolls and stops.
func TestExtremeNumbers(t *testing.T) {
	numbers := 0
	eachNumber(reflect.ValueOf(&prefork.Config{}).Elem(), "", func(field string, index []int, _ reflect.Value) {
		numbers++
		for _, n := range []int64{math.MinInt64, -1, 1, math.MaxInt64 - 1, math.MaxInt64} {
			t.Run(fmt.Sprintf("%s %d", field, n), func(t *testing.T) {
				cfg := prefork.Config{
					SpawnInterval: time.Second, // a bubble cannot start any number of workers
					TrapSignals:   prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, usr1: {Signal: usr1, Interval: 1}},
				}
				if field == "SpawnInterval" {
					cfg.MaxWorkers = 1
				}
				reflect.ValueOf(&cfg).Elem().FieldByIndex(index).SetInt(n)
				if field == "MinSpareWorkers" && n > 0 {
					cfg.MaxWorkers = int(n)
				}
				works(t, field, cfg)
			})
		}
	})
	if numbers < 20 {
		t.Errorf("%d numbers found", numbers)
	}
	for _, interval := range []time.Duration{1, math.MaxInt64} {
		works(t, "TrapSignals", prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, usr1: {Signal: usr1, Interval: interval}}})
	}
}

// eachNumber calls f with the integers and durations of a struct, and of those in
// it.
func eachNumber(v reflect.Value, prefix string, f func(field string, index []int, v reflect.Value)) {
	for _, field := range reflect.VisibleFields(v.Type()) {
		value := v.FieldByIndex(field.Index)
		switch value.Kind() {
		case reflect.Struct:
			eachNumber(value, prefix+field.Name+".", func(name string, index []int, v reflect.Value) {
				f(name, append(field.Index[:1:1], index...), v)
			})
		case reflect.Int, reflect.Int64:
			f(prefix+field.Name, field.Index, value)
		}
	}
}

// works runs a pool for some time, unless New refuses the field.
func works(t *testing.T, field string, cfg prefork.Config) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, name: fmt.Sprintf("%s/%d", t.Name(), rigs.Add(1)), table: cfg.TrapSignals}
		r.observe(&cfg)
		cfg.Name, cfg.Logger = r.name, slog.New(slog.DiscardHandler)
		t.Cleanup(r.release)
		m, err := r.newManager(cfg, options{onStart: reachStart, onSignal: endOnTerm})
		if err != nil {
			var bad *prefork.ConfigError
			if !errors.As(err, &bad) || bad.Field != field {
				t.Errorf("New: %v", err)
			}
			return
		}
		r.Manager = m
		done := r.startLoop()
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		marker := markerOf(t, r.process(1))
		if marker.Slot != 0 || marker.Requests > max(0, cfg.Recycle.MaxRequests) || cfg.Recycle.MaxRequests > 0 && marker.Requests < cfg.Recycle.MaxRequests/10*8 {
			t.Errorf("marker %+v", marker)
		}
		send(r.process(1), wire.Recycle{})
		r.Deliver(usr1)
		time.Sleep(10 * time.Second)
		r.fake.Started()[len(r.fake.Started())-1].Exit(proc.Status{Code: 1})
		r.Deliver(hup)
		time.Sleep(10 * time.Second)
		if n := r.NumWorkers(); n == 0 && cfg.SpawnInterval < time.Hour {
			t.Errorf("no workers:\n%s", strings.Join(r.eventLog(), "\n"))
		}
		r.Deliver(term)
		<-done
	})
}

// New refuses what can never work, with the field's name and the way out.
func TestConfigThatCanNeverWork(t *testing.T) {
	for _, test := range []struct {
		field, want string
		cfg         prefork.Config
	}{
		{"Resources.GOMAXPROCS", "leave it 0", prefork.Config{Resources: prefork.Resources{GOMAXPROCS: 8193}}},
		{"Resources.GOMAXPROCS", "leave it 0", prefork.Config{Command: []string{"true"}, Resources: prefork.Resources{GOMAXPROCS: math.MaxInt}}},
		{"Name", "may have 1024", prefork.Config{Name: strings.Repeat("x", 1025)}},
		{"Command", "zero byte", prefork.Config{Command: []string{"true", "\x00"}}},
		{"Command", "pass a file", prefork.Config{Command: []string{"true", strings.Repeat("x", 128<<10-1)}}},
		{"Readiness.Timeout", "time.Second", prefork.Config{Readiness: prefork.Readiness{Timeout: 30}}},
		{"Stuck.Timeout", "time.Second", prefork.Config{Stuck: prefork.Stuck{Timeout: 30}}},
		{"UpgradeTimeout", "time.Second", prefork.Config{UpgradeTimeout: 30}},
	} {
		if test.cfg.Name == "" {
			test.cfg.Name = t.Name()
		}
		_, err := prefork.New(test.cfg)
		var bad *prefork.ConfigError
		if !errors.As(err, &bad) || bad.Field != test.field || !strings.Contains(bad.Error(), test.want) {
			t.Errorf("%s: New: %.200v", test.field, err)
		}
	}
}

// Each field of Resources reaches its check: a wrong value is an error that names
// it.
func TestResourcesArrive(t *testing.T) {
	wrong := map[string]prefork.Resources{
		"GOMAXPROCS":    {GOMAXPROCS: -2},
		"GOMEMLIMIT":    {GOMEMLIMIT: -1},
		"CPUs":          {CPUs: []int{}},
		"CPUsPerWorker": {CPUsPerWorker: -1},
		"Nice":          {Nice: 100},
		"Rlimits":       {Rlimits: []prefork.Rlimit{{Resource: "patience"}}},
		"Cgroup":        {Cgroup: "/no/such/cgroup"},
		"User":          {User: "no-such-user"},
		"Group":         {Group: "0"},
		"Groups":        {Groups: []string{}},
		"Chroot":        {Chroot: "relative"},
		"Umask":         {Umask: "9"},
	}
	for field := range reflect.TypeFor[prefork.Resources]().Fields() {
		if field.Name == "NoNewPrivs" {
			continue // no value is wrong; TestResourcesOfACommand sees it arrive
		}
		r, ok := wrong[field.Name]
		if !ok {
			t.Errorf("no wrong value for Resources.%s", field.Name)
		}
		cfg := prefork.Config{Name: t.Name(), Resources: r}
		var bad *prefork.ConfigError
		if _, err := prefork.New(cfg); !errors.As(err, &bad) || bad.Field != "Resources."+field.Name {
			t.Errorf("Resources.%s: New: %v", field.Name, err)
		}
	}
	// Each field of a Rlimit, too.
	for _, l := range []prefork.Rlimit{{Resource: "patience"}, {Resource: prefork.RlimitCore, Soft: 2, Hard: 1}} {
		var bad *prefork.ConfigError
		if _, err := prefork.New(prefork.Config{Name: t.Name(), Resources: prefork.Resources{Rlimits: []prefork.Rlimit{l}}}); !errors.As(err, &bad) {
			t.Errorf("%+v: New: %v", l, err)
		}
	}
}
