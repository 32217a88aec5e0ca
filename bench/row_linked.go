//go:build linux

package main

// linkedRow returns a row that measures how much later a program that links a
// package reaches its main. Each worker of such a program does.
func linkedRow(program, links string) func(r *run) error {
	return func(r *run) error {
		rounds := r.rounds(300, 10)
		r.bounds("%d rounds, in turns", rounds)
		without, err := linkedProgram{"library", "this library", nil}.build(r, false)
		if err != nil {
			return err
		}
		with, err := linkedProgram{program, links, nil}.build(r, false)
		if err != nil {
			return err
		}
		all := []*linked{without, with}
		if err := alternate(rounds, all, (*linked).measure); err != nil {
			return err
		}
		r.ratio(with.took, without.took, atMost(1.03))
		return nil
	}
}
