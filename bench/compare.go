package main

import (
	"errors"
	"fmt"
	"io"
)

// compare prints the ratios of the medians of two revisions, for each series
// that is in all reports. The files are reports of alternating runs: before[i]
// and after[i] are neighbors.
//
// The median of a run is one sample. The samples within a run are not
// independent, because they come from the same processes, so using them
// directly would make the intervals too narrow. There should be at least five
// runs of each revision.
func compare(w io.Writer, before, after []string) error {
	if len(before) != len(after) {
		return fmt.Errorf("%d reports before and %d after: give the same number", len(before), len(after))
	}
	base, err := readMedians(before)
	if err != nil {
		return err
	}
	changed, err := readMedians(after)
	if err != nil {
		return err
	}
	t := &table{
		head: []string{"row", "series", "before", "after", "after / before", ""},
		left: []bool{true, true, false, false, false, true},
	}
	slower := 0
	for _, s := range changed {
		b := find(base, s)
		if b == nil || len(b.Samples) != len(before) || len(s.Samples) != len(after) {
			t.add(s.Group, s.Name, "", "", "", "not in all reports")
			continue
		}
		f := figure{Unit: times}
		f.Value, f.Low, f.High = ratioOf(s.Samples, b.Samples)
		verdict := f.change(s.Unit)
		if verdict == "slower" {
			slower++
		}
		t.add(s.Group, s.Name, s.Unit.format(median(b.Samples)), s.Unit.format(median(s.Samples)), f.value(), verdict)
	}
	t.write(w, "")
	if slower > 0 {
		return fmt.Errorf("%d series are slower by more than their interval", slower)
	}
	return nil
}

// change describes a ratio of two series with unit u. Inside its interval it is
// no change.
func (f figure) change(u unit) string {
	low, high := f.Low, f.High
	if u == perSecond { // more is better
		low, high = 1/high, 1/low
	}
	switch {
	case low > 1:
		return "slower"
	case high < 1:
		return "faster"
	}
	return "no change"
}

// readMedians returns a series of medians, with one sample from each file, for
// each series in the files. Its group is the name of the row.
func readMedians(files []string) (all []*series, err error) {
	for _, file := range files {
		r, err := readReport(file)
		if err != nil {
			return nil, err
		}
		for _, row := range r.Rows {
			all = row.addMedians(all)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no series in the reports")
	}
	return all, nil
}

func (r *result) addMedians(all []*series) []*series {
	for _, s := range r.Series {
		if s.Spread.N == 0 {
			continue
		}
		m := &series{Group: r.Name, Name: s.title(), Unit: s.Unit}
		if known := find(all, m); known != nil {
			m = known
		} else {
			all = append(all, m)
		}
		m.add(s.Spread.Median)
	}
	return all
}

// find returns the series in all with the group, the name and the unit of s, or
// nil.
func find(all []*series, s *series) *series {
	for _, other := range all {
		if other.Group == s.Group && other.Name == s.Name && other.Unit == s.Unit {
			return other
		}
	}
	return nil
}
