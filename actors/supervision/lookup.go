package supervision

// Lookup returns the Ref of the actor at a path of names joined by "/", and false
// when the tree has none there.
func (s *System) Lookup(path string) (*Ref, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.roles[path]
	if !ok {
		return nil, false
	}
	return r.ref, true
}
