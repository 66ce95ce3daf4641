"""Published cell models once more: float64 numpy, written from other sources than the library.

One file a paper, equations in the order and form of the publication and not optimised, so that a
slip in either reading shows as a difference. Every module offers ``INITIAL``, the names and
physical values of voltage and states, and ``rhs(t, y, i_stim, **parameters)``, their time
derivatives in mV and mM per ms; `y` holds numbers or arrays, `i_stim` is in A/F and depolarises
where positive.
"""
