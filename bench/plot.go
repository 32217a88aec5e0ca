package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// draw writes the plots of each row to dir.
func (r *report) draw(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, row := range r.Rows {
		for i, u := range row.units() {
			name := row.Name
			if i > 0 {
				name += fmt.Sprint("-", i+1)
			}
			if err := row.plot(u, filepath.Join(dir, name+".svg")); err != nil {
				return fmt.Errorf("plot of %s: %w", row.Name, err)
			}
		}
	}
	return nil
}

// units returns the units of the row's series. Each unit has a plot.
func (r *result) units() (units []unit) {
	for _, s := range r.Series {
		if len(s.Samples) > 0 && !slices.Contains(units, s.Unit) {
			units = append(units, s.Unit)
		}
	}
	return units
}

var (
	oursColor = color.RGBA{R: 0, G: 108, B: 184, A: 255}
	peerColor = color.RGBA{R: 120, G: 120, B: 120, A: 255}
)

// plot draws the medians and quartiles of the series with unit u. The first
// series is at the top.
func (r *result) plot(u unit, file string) error {
	p := plot.New()
	if p.Title.Text = r.What; len(p.Title.Text) > 70 {
		p.Title.Text = r.Name
	}
	p.X.Label.Text = "median and middle half; left is better"
	if u == perSecond {
		p.X.Label.Text = "median and middle half; right is better"
	}
	var names []string
	low, high := math.Inf(1), 0.0
	for _, s := range slices.Backward(r.Series) {
		if s.Unit != u || len(s.Samples) == 0 {
			continue
		}
		if err := s.plot(p, float64(len(names))); err != nil {
			return err
		}
		names = append(names, "   "+s.title()) // the spaces keep the longest from being clipped
		low, high = min(low, s.Spread.Q1), max(high, s.Spread.Q3)
	}
	p.X.Tick.Marker = ticks{u}
	if low > 0 && high > 10*low { // a linear scale would hide the small ones
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{u}
		p.X.Min, p.X.Max = low/1.5, high*1.5
	} else {
		p.X.Min, p.X.Max = 0, high*1.1
	}
	p.Y.Min, p.Y.Max = -0.5, float64(len(names))-0.5
	p.NominalY(names...)
	grid := plotter.NewGrid()
	grid.Horizontal.Width = 0
	p.Add(grid)
	return p.Save(18*vg.Centimeter, vg.Length(len(names))*0.65*vg.Centimeter+3*vg.Centimeter, file)
}

func (s *series) plot(p *plot.Plot, y float64) error {
	at := plotter.XYs{{X: s.Spread.Median, Y: y}}
	points, err := plotter.NewScatter(at)
	if err != nil {
		return err
	}
	bars, err := plotter.NewXErrorBars(struct {
		plotter.XYer
		plotter.XErrorer
	}{at, plotter.XErrors{{Low: s.Spread.Median - s.Spread.Q1, High: s.Spread.Q3 - s.Spread.Median}}})
	if err != nil {
		return err
	}
	c := peerColor
	if strings.HasPrefix(s.Name, "prefork") {
		c = oursColor
	}
	points.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(4), Shape: draw.CircleGlyph{}}
	bars.LineStyle = draw.LineStyle{Color: c, Width: vg.Points(1.5)}
	p.Add(points, bars)
	return nil
}

// ticks labels an axis in a unit.
type ticks struct{ unit unit }

func (t ticks) Ticks(low, high float64) []plot.Tick {
	return t.label(plot.DefaultTicks{}.Ticks(low, high))
}

func (t ticks) label(all []plot.Tick) []plot.Tick {
	for i := range all {
		if !all[i].IsMinor() {
			all[i].Label = t.unit.format(all[i].Value)
		}
	}
	return all
}

// logTicks labels an axis with 1, 2, 5, 10, 20 …, or a long one with 1, 10, 100
// …
type logTicks struct{ unit unit }

func (t logTicks) Ticks(low, high float64) (all []plot.Tick) {
	for power := math.Floor(math.Log10(low)); power <= math.Ceil(math.Log10(high)); power++ {
		for _, step := range []float64{1, 2, 5} {
			v := step * math.Pow(10, power)
			if v < low || v > high {
				continue
			}
			tick := plot.Tick{Value: v}
			if step == 1 || high < 50*low {
				tick.Label = t.unit.format(v)
			}
			all = append(all, tick)
		}
	}
	return all
}
