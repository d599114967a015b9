"""The dashboards as tables: rows of panels, a panel a title, a unit and its queries with their legends."""
