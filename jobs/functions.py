"""Every operator on texts as a Spark SQL function (an Arrow UDF), with the same results as the job.

    gristmill.jobs.register(spark)
    spark.sql("SELECT language(text), language_label(text) FROM pages")

    from gristmill.jobs.functions import char_repetition
    df.select(char_repetition("text", n=5))

A transform and each column of a score are one function; a null text gives null. Parameters of an SQL function are set
when it is registered: `register(spark, char_repetition={"n": 5})`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from gristmill.jobs.steps import nearest
from gristmill.udfs import registry
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.texts import Texts


def register(spark: Any, **parameters: Mapping[str, Any]) -> list[str]:
    """Make every operator a function of this session; returns their names. One that needs a parameter that is not given is left out.

    Raises RecipeError for an operator or a parameter that there is not.
    """
    operators, made = {name: one for name, one in registry.operators().items() if one.of == "texts"}, []
    for name in parameters:
        if name not in operators:
            raise RecipeError(f"no operator '{name}'.{nearest(name, operators)}")
    for name, operator in operators.items():
        given = registry.check_parameters(operator, parameters.get(name, {})) if name in parameters else {}
        if any(field.is_required() and key not in given for key, field in operator.parameters.model_fields.items()):
            continue
        for column in operator.columns(given) or [name]:
            spark.udf.register(column, arrow_udf(operator, column, given))
            made.append(column)
    return made


def arrow_udf(operator: registry.Operator, column: str, parameters: Mapping[str, Any]) -> Any:
    """One column of an operator as a pyspark Arrow UDF."""
    from pyspark.sql.functions import arrow_udf as make
    from pyspark.sql.pandas.types import from_arrow_type

    dtype = operator.columns(parameters).get(column, pa.string())

    def run(text: pa.Array) -> pa.Array:
        result = registry.apply(registry.operators()[name], Texts(text), parameters)
        return (result.cast(pa.string()) if kind == "transform" else result[column])

    name, kind = operator.name, operator.kind   # the operator itself stays behind: workers find theirs by name
    run.__name__ = column
    return make(run, from_arrow_type(dtype))   # type: ignore[call-overload]


def __getattr__(name: str) -> Callable[..., Any]:
    """`from gristmill.jobs.functions import char_repetition`: a function of a column and the operator's parameters."""
    for operator in registry.operators().values() if not name.startswith("_") else ():
        if operator.of == "texts" and (name == operator.name or name in operator.columns({})):
            return _column_function(operator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _column_function(operator: registry.Operator, column: str) -> Callable[..., Any]:
    def function(text: Any, **parameters: Any) -> Any:
        return arrow_udf(operator, column, registry.check_parameters(operator, parameters))(text)

    function.__name__, function.__doc__ = column, operator.function.__doc__
    return function
