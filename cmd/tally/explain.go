package main

import "io"

type searchReport struct{}

func (s *searchReport) print(w io.Writer) {}
