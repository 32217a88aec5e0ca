package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// quantile returns the quantile q (0 … 1) of at least one sorted sample,
// interpolated between neighbors.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 == len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// spread summarizes a series: the median, the quartiles and the extremes.
type spread struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf returns the spread of samples; it is zero if there are none.
func spreadOf(samples []float64) spread {
	if len(samples) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(samples))
	return spread{len(s), quantile(s, 0.5), quantile(s, 0.25), quantile(s, 0.75), quantile(s, 0), quantile(s, 1)}
}

func median(samples []float64) float64 { return spreadOf(samples).Median }

func mean(samples []float64) float64 {
	sum := 0.0
	for _, v := range samples {
		sum += v
	}
	return sum / float64(len(samples))
}

// variation returns the coefficient of variation: the standard deviation of
// counts divided by their mean.
func variation(counts []int) float64 {
	sum, squares := 0.0, 0.0
	for _, c := range counts {
		sum += float64(c)
	}
	m := sum / float64(len(counts))
	for _, c := range counts {
		squares += (float64(c) - m) * (float64(c) - m)
	}
	return math.Sqrt(squares/float64(len(counts))) / m
}

// ratioOf returns the ratio of the medians of two series and its 95 % interval,
// by bootstrap: samples are drawn with replacement. Series of the same length
// come from alternating measurements, with a sample of each in a round. They
// are drawn together, so that a disturbance in a round affects both. The draws
// are the same in each run.
func ratioOf(samples, base []float64) (ratio, low, high float64) {
	ratio = median(samples) / median(base)
	random := rand.New(rand.NewPCG(1, 2))
	rounds := func(n int) []int {
		drawn := make([]int, n)
		for i := range drawn {
			drawn[i] = random.IntN(n)
		}
		return drawn
	}
	of := func(from []float64, rounds []int) float64 {
		drawn := make([]float64, len(rounds))
		for i, round := range rounds {
			drawn[i] = from[round]
		}
		return median(drawn)
	}
	ratios := make([]float64, 0, 1000)
	for range cap(ratios) {
		mine := rounds(len(samples))
		its := mine
		if len(base) != len(samples) {
			its = rounds(len(base))
		}
		ratios = append(ratios, of(samples, mine)/of(base, its))
	}
	slices.Sort(ratios)
	return ratio, quantile(ratios, 0.025), quantile(ratios, 0.975)
}
