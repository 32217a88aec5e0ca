//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// row is one line of the table, and how it is measured.
type row struct {
	name, what, beside, goal string
	measure                  func(*run) error
}

// run measures one row.
type run struct {
	*result
	ctx      context.Context
	quick    bool
	fleet    int // how many workers "1,000 workers" are
	dir      string
	cpus     placement
	builds   *builds
	launcher *launcher
	say      func(format string, args ...any) // progress
}

// rounds is how often something is repeated: less often in a quick run.
func (r *run) rounds(full, quick int) int {
	if r.quick {
		return quick
	}
	return full
}

// lasts is how long something is let run: less long in a quick run.
func (r *run) lasts(full, quick time.Duration) time.Duration {
	if r.quick {
		return quick
	}
	return full
}

// bounds says how much is done, for the table.
func (r *run) bounds(format string, args ...any) {
	r.Bounds = fmt.Sprintf(format, args...)
	r.say("%s", r.Bounds)
}

func (r *run) series(group, name, settings string, u unit) *series {
	s := &series{Name: name, Group: group, Settings: settings, Unit: u}
	r.Series = append(r.Series, s)
	return s
}

// ratio compares the medians of two series.
func (r *run) ratio(s, base *series, g *goal) {
	if s == nil || base == nil || len(s.Samples) == 0 || len(base.Samples) == 0 || median(base.Samples) == 0 {
		return // a contender that is left out
	}
	f := figure{Name: s.title() + " / " + base.title(), Unit: times, Goal: g}
	if s.Group == base.Group {
		f.Name = join(s.Group, s.Name+" / "+base.Name)
	}
	f.Value, f.Low, f.High = ratioOf(s.Samples, base.Samples)
	f.Reached = g != nil && g.reached(f.Value)
	r.Figures = append(r.Figures, f)
}

// figure adds a number that is no ratio of two series.
func (r *run) figure(name string, value float64, u unit, g *goal) {
	r.Figures = append(r.Figures, figure{Name: name, Value: value, Unit: u, Goal: g, Reached: g != nil && g.reached(value)})
}

func (r *run) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// turns are the contenders in the order of one round. Each round begins with another, so that what follows the pause
// between two rounds, or a neighbour that leaves much behind, falls on all of them.
func turns[T any](round int, all []T) []T {
	if len(all) == 0 {
		return nil
	}
	first := round % len(all)
	return append(append(make([]T, 0, len(all)), all[first:]...), all[:first]...)
}

// notInstalled is the error of a contender that cannot be measured here.
type notInstalled struct{ what, how string }

func (e *notInstalled) Error() string {
	return fmt.Sprintf("%s is not installed; %s", e.what, e.how)
}

// without notes that a contender is left out, where err says that it is not installed, and returns any other error.
func (r *run) without(name string, err error) error {
	var missing *notInstalled
	if !errors.As(err, &missing) {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	r.LeftOut = append(r.LeftOut, leftOut{name, err.Error()})
	r.say("left out: %s: %v", name, err)
	return nil
}
