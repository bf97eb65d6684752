"""Deep Boltzmann machine: energy, Gibbs, mean field, scores, pretraining, learning, partition function, enumeration."""
