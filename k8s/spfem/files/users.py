"""Writes the settings of MLflow's users where the server reads them, and sees to it that the Ray pods' user is one of them.

Runs before each start of the server, with the variables of its pod. The first user is the server's own affair. The Ray pods' is no
administrator: it owns the experiments and models that its runs make, and may only read all others.
"""

import configparser
import os
import time

database = os.environ["MLFLOW_BACKEND_STORE_URI"]
settings = configparser.RawConfigParser()
settings["mlflow"] = {
    "default_permission": "READ",
    "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    "grant_default_workspace_access": "false",
    "database_uri": database.replace("%", "%%"),  # MLflow's parser takes a single one for the name of a setting
}
with open(os.environ["MLFLOW_AUTH_CONFIG_PATH"], "w") as file:
    os.fchmod(file.fileno(), 0o600)
    settings.write(file)

name, password = os.environ.get("RAY_USERNAME"), os.environ.get("RAY_PASSWORD")
if not (name and password):
    print("no user is made for the Ray pods: their Secret has no MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
elif name == os.environ["MLFLOW_AUTH_ADMIN_USERNAME"]:
    print("the Ray pods log in as the first user, who may do everything")
else:
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    for last in (False, False, False, False, True):
        try:
            store = SqlAlchemyStore()
            store.init_db(database)
            if store.has_user(name):
                store.update_user(name, password=password)
            else:
                store.create_user(name, password)
            break
        except Exception as error:  # another replica may be making the same tables or the same user
            if last:  # other errors than MLflow's own may show the database's address
                reason = error.message if isinstance(error, MlflowException) else type(error).__name__
                raise SystemExit(f"the user {name} could not be made: {reason}") from None
            time.sleep(3)
    print(f"the Ray pods log in as {name}, who is no administrator")
