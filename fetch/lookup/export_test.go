package lookup

// OwnResponsesOnly makes l free a slot by its own response alone, as the constant
// confirmByNeighbours can.
func (l *Limiter) OwnResponsesOnly() { l.confirmByNeighbours = false }
