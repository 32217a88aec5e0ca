//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// row is a row of the table, with the function that measures it.
type row struct {
	name, what, beside, goal string
	measure                  func(*run) error
}

// run is the measurement of one row.
type run struct {
	*result
	ctx      context.Context
	quick    bool
	fleet    int // number of workers in the rows with 1,000 workers
	dir      string
	cpus     placement
	builds   *builds
	launcher *launcher
	logf     func(format string, args ...any) // prints progress
}

// rounds returns the number of rounds of this run. A row should finish within
// seconds in a quick run.
func (r *run) rounds(full, quick int) int {
	if r.quick {
		return quick
	}
	return full
}

// lasts returns a duration of this run.
func (r *run) lasts(full, quick time.Duration) time.Duration {
	if r.quick {
		return quick
	}
	return full
}

// bounds sets the description of the amount of work.
func (r *run) bounds(format string, args ...any) {
	r.Bounds = fmt.Sprintf(format, args...)
	r.logf("%s", r.Bounds)
}

func (r *run) series(group, name, settings string, u unit) *series {
	s := &series{Name: name, Group: group, Settings: settings, Unit: u}
	r.Series = append(r.Series, s)
	return s
}

// ratio adds the ratio of the medians of two series.
func (r *run) ratio(s, base *series, g *goal) {
	if s == nil || base == nil || len(s.Samples) == 0 || len(base.Samples) == 0 || median(base.Samples) == 0 {
		return // a contender was not measured
	}
	f := figure{Name: s.title() + " / " + base.title(), Unit: times, Goal: g}
	if s.Group == base.Group {
		f.Name = join(s.Group, s.Name+" / "+base.Name)
	}
	f.Value, f.Low, f.High = ratioOf(s.Samples, base.Samples)
	f.Reached = g != nil && g.reached(f.Value)
	r.Figures = append(r.Figures, f)
}

// figure adds a number that is not a ratio of two series.
func (r *run) figure(name string, value float64, u unit, g *goal) {
	r.Figures = append(r.Figures, figure{Name: name, Value: value, Unit: u, Goal: g, Reached: g != nil && g.reached(value)})
}

func (r *run) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// alternate calls measure for each contender in each round.
func alternate[T any](rounds int, all []T, measure func(T) error) error {
	for round := range rounds {
		for _, c := range turns(round, all) {
			if err := measure(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// turns returns the contenders in the order of a round. Each round begins with
// another one, so that the effects of a pause between rounds, and of the
// previous contender, affect all of them equally.
func turns[T any](round int, all []T) []T {
	if len(all) == 0 {
		return nil
	}
	first := round % len(all)
	return append(append(make([]T, 0, len(all)), all[first:]...), all[:first]...)
}

// notInstalled is the error for a contender that cannot be measured on this
// machine.
type notInstalled struct{ name, help string }

func (e *notInstalled) Error() string {
	return fmt.Sprintf("%s is not installed: %s", e.name, e.help)
}

// skipMissing notes that a contender is not measured if err is a notInstalled.
// It returns any other error.
func (r *run) skipMissing(name string, err error) error {
	var missing *notInstalled
	if !errors.As(err, &missing) {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	r.LeftOut = append(r.LeftOut, leftOut{name, err.Error()})
	r.logf("not measured: %s: %v", name, err)
	return nil
}
